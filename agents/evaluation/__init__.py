"""What a policy writes, measured.

``metrics`` are pure functions, ``evaluator`` takes them all of canvases and priors. ``two_sample``
trains fresh classifiers against reals, ``frontier`` sweeps temperatures, ``image_folder`` takes
images from elsewhere, ``published`` the networks of FID, KID and CMMD. ``comparison`` is what
``ral evaluate`` prints.
"""
