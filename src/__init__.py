"""CT segmentation experiments; README.md says what is where."""

import os

# TensorFlow notes at every start what it found; 2 leaves its errors. It reads the setting when it
# is loaded, so it is set here, before any module of this package can load it. A user's own stands.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
