"""What only a game seen through a camera on a plane can be asked: does what was left look the same on return?"""
