"""The images of tasks: what training asks of a data set, the scenes that are made, ADE20K and COCO in files."""
