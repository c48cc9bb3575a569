"""Trained models on images, folders and videos.

``predict`` is what tools/predict.py calls. ``deployed_config`` makes a config
that MMSegmentation's and MMDetection's own inferencers build a model from
that needs no other file than its checkpoint.
"""

from mmvitcompress.inference.predicting import predict
from mmvitcompress.inference.predictor import Predictor, deployed_config

__all__ = ['Predictor', 'deployed_config', 'predict']
