"""What is asked of a game through whose world a camera moves: does what was left look the same on return?"""
