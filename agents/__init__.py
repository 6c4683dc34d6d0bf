"""Who learns: maximum likelihood, the discriminator, and REINFORCE."""

import ral_env  # noqa: F401  registers the ids, and knows old names
