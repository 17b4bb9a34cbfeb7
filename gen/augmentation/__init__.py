"""Training pictures from training pictures, with the labels that belong to them.

operations.py  what can be done to a picture, and what each operation needs
sdedit.py      vary a picture: noise it in part, and denoise it under its own words
areas.py       where a lesion is painted: masks, boxes, and places drawn in the lungs
overlay.py     lay what was painted over the picture, which stays exact elsewhere
classical.py   TorchIO's transforms as steps, for pictures and their masks
"""
