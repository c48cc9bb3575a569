"""Processes that start at once, with everything imported.

A new Python takes ten seconds to import PyTorch and OpenMMLab. A server that
has imported what the tools import, and done nothing else, forks instead; the
fork gets arguments, environment, folder, streams and signals of who asks for
it, and fresh random numbers. :func:`warm_python` is the path of a program
that asks, in place of ``sys.executable``. What is about a new Python itself
(what is imported, and when) must start a real one.
"""

import atexit
import contextlib
import functools
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]
# those that take time and that the tools import before they do anything
MODULES = (
    'mmvitcompress.datasets.label_check',
    'mmvitcompress.engine.launch',
    'torch.distributed.run',
)
SERVERS = []  # without a reference their standard input would be closed


@functools.cache
def warm_python():
    """The program's path; its server lives as long as this process.

    Where processes can't be waited for as Linux does, it is Python itself.
    """
    if not hasattr(os, 'pidfd_open'):
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix='warm'))
    address, program = folder / 'socket', folder / 'python'
    program.write_text(
        f'#!{sys.executable} -IS\n'
        f'import sys\nsys.path.insert(0, {str(HELPERS)!r})\n'
        f'from warm_client import main\nmain({str(address)!r})\n'
    )
    program.chmod(0o755)
    code = f'from warm import serve; serve({str(address)!r})'
    paths = os.pathsep.join(map(str, (HELPERS, ROOT)))
    server = subprocess.Popen(
        [sys.executable, '-c', code],
        stdin=subprocess.PIPE,  # closes when this process ends
        stdout=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': paths},
    )
    SERVERS.append(server)
    assert server.stdout.readline() == b'ready\n'
    return str(program)


def serve(address):
    """Import, and fork for everyone who connects to a Unix socket, until
    standard input is closed."""
    for name in MODULES:
        __import__(name)
    assert threading.active_count() == 1  # others would not be forked
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print('ready', flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            asking, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(asking)
            asking.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _answer(asking):
    """Fork once more, and tell how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first, streams, *_ = socket.recv_fds(asking, 1, 3)
    content = first + b''.join(iter(lambda: asking.recv(1), b'\0'))
    pid = os.fork()
    if pid == 0:
        asking.close()
        _become(json.loads(content), streams)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):
        asking.sendall(f'{pid}\n'.encode())
    end, poll = os.pidfd_open(pid), select.poll()
    poll.register(end, select.POLLIN)
    poll.register(asking, select.POLLHUP | select.POLLRDHUP)
    if end not in dict(poll.poll()):  # who asked was killed
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        asking.sendall(f'{status}\n'.encode())
    os._exit(0)


def _become(request, streams):
    """Be the process that was asked for."""
    with contextlib.suppress(OSError):  # another session's
        os.setpgid(0, request['group'])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        if stream > 2:
            os.close(stream)
    # the server's may be files, where these are pipes
    sys.stdout = os.fdopen(1, 'w', 1, closefd=False)
    sys.stderr = os.fdopen(2, 'w', 1, errors='backslashreplace', closefd=False)
    os.chdir(request['folder'])
    os.environ.clear()
    os.environ.update(request['environment'])
    sys.executable = request['executable']  # what it starts is warm as well
    for path in reversed(os.environ.get('PYTHONPATH', '').split(os.pathsep)):
        if path:
            sys.path.insert(0, path)
    random.seed()
    sys.modules['numpy'].random.seed()
    sys.modules['torch'].seed()
    os._exit(_run(request['words']))


def _run(words):
    """Run a script, ``-m module`` or ``-c code``; the exit status."""
    status = 1
    try:
        kind, *sys.argv = words if words[0] in ('-m', '-c') else ('', *words)
        if kind == '-c':
            code, sys.argv[0] = sys.argv[0], '-c'
            sys.path.insert(0, '')
            main = dict(__name__='__main__', __builtins__=__builtins__)
            exec(compile(code, '<string>', 'exec'), main)
        elif kind == '-m':
            sys.path.insert(0, os.getcwd())
            runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent.resolve()))
            runpy.run_path(sys.argv[0], run_name='__main__')
        status = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        else:
            status = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status
