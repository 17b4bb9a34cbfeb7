"""Where a picture departs from healthy anatomy: rivals, and lesions whose place is known.

detections.py     what every detector answers, and the residual as a map
planted.py        lesions painted into healthy pictures, with exact masks
pca.py, autoencoder.py  reconstruction from what healthy pictures have in common
partial_noise.py  noise a picture in part and denoise it
"""
