"""Keep what models are and compute today: the data of tests/test_golden.py.

To be run where behaviour changes on purpose; what has changed is printed, and
belongs into the commit's message.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'helpers'))

from golden import differences, measured, read, write
from golden_cases import CASES
from golden_tools import counted, read_counts, write_counts


def main():
    for group, cases in CASES.items():
        found = {name: measured(case) for name, case in cases.items()}
        kept = read(group)
        for name in kept.keys() | found.keys():
            if name not in kept or name not in found:
                print(
                    f'{group}: {name} is {"new" if name in found else "lost"}'
                )
                continue
            for line in differences(
                kept[name], found[name], cases[name].single
            ):
                print(f'{group}: {name}: {line}')
        write(group, found)
    found, kept = counted(), read_counts()
    for name in found:
        if kept.get(name) != found[name]:
            print(f'tools: {name}: {found[name]}')
    write_counts(found)


if __name__ == '__main__':
    main()
