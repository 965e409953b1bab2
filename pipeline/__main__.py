"""`python -m pipeline` is `video-lstm`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
