"""`pullthrough doctor`: looks at everything between a client and an upstream, one step at a time.

What is found is judged by pure functions (`judge`), from facts that the other files gather; `examination` says which
steps there are. Nothing here costs a counted pull but the canary, and that one at most. Credentials go to an upstream's
realm, or to the upstream itself where it asks for Basic, and nowhere else; what others answer is never repeated as it
came, since it could hold a secret: it is recognised, and said in our words.
"""
