"""Gameplay to shards: games, players, the recorder and the reader of what it wrote. Needs no torch.

python -m data_collect record --game maze --player explorer --frames 20000 --workers 2 --out data/maze
python -m data_collect verify data/maze
python -m data_collect inspect data/maze --sheet sheet.png
"""
