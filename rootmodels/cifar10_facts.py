"""What the images of CIFAR-10 (Krizhevsky 2009) are, for whatever is made for them; reads none."""

SIDE = 32
"""Height and width in pixels."""

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
"""Of the training images, by channel, in 0..255."""

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""In the order of the labels."""
