"""A storm of operator actions over one pool: drawn from a seed, carried out, and judged."""
