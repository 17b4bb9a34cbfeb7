"""Images to features, by any encoder of the model store.

encoder.py       what every encoder does: features, unit-length embeddings, grids of them
windows.py       windows around the points of a grid, mirrored at the edges of a picture
loading.py       an encoder by its id, folder or file
transformers_vision.py, timm_vision.py, state_dicts.py  the networks of others
normalisation.py how they want their pixels
"""
