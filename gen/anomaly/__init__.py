"""Where a picture departs from healthy anatomy.

healthy_prior.py  what methods ask of a model, and what they answer
residuals.py      how unlike two pictures are at each pixel
autopaint.py, patchwise.py, autoddpm.py, thor.py, single_step.py  the methods
body.py           where a picture shows the body
regions.py        from a map to regions, boxes and a score
calibration.py    thresholds from healthy pictures

Rivals, and lesions whose place is known:

detections.py     what every detector answers, and the residual as a map
planted.py        lesions painted into healthy pictures, with exact masks
pca.py, autoencoder.py  reconstruction from what healthy pictures have in common
partial_noise.py  noise a picture in part and denoise it
"""
