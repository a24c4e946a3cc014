"""Images, sound and video from outside. `fetch` gets bytes from addresses that somebody else has written, and nothing
else in the project may do that. What a model makes of them does not belong here.
"""
