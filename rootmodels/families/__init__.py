"""The families that come with this package: each in one file, which says all there is to say of it."""
