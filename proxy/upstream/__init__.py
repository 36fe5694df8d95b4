"""The registries we ask: challenges, tokens, redirects and the verbs `pull` uses (`fallback.Registry`)."""
