"""What all command-line tools share; whose fault an exception is.

The same exception may be a mistake in a config or a bug of ours: which one
can be told from where it came, as its message does not say.
"""

import argparse
import errno
import io
import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO
