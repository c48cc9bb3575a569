"""Quality over cost, from files of the tools."""

import json

import pytest

from mmvitcompress.errors import ConfigError
from mmvitcompress.visualization import draw_curve, join_results, read_results


def row(config, macs, ms):
    times = {f'{part}_ms': {'median': ms} for part in ('backbone', 'overall')}
    return {'config': config, 'macs': macs, 'encoder_ms': None, **times}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def benchmark(write):
    content = {
        'batch_size': 8,
        'candidates': [row('configs/atme.py', 32e6, 11.5)],
        'baseline': row('configs/dense.py', 65e6, 20.0),
    }
    return write('speed.json', content)


def test_files_of_the_tools_are_joined(write, benchmark):
    files = [
        write('dense.json', {'top1': 66.1, 'top5': 90.0}),
        write('atme.json', {'top1': 62.0}),
    ]
    dense, atme = join_results(benchmark, files)
    assert dense == {
        'name': 'dense',
        'quality': 66.1,
        'metric': 'top-1 accuracy (%)',
        'macs': 65e6,
        'latency_ms': 20.0,
        'batch_size': 8,
    }
    assert (atme['name'], atme['quality']) == ('atme', 62.0)
    with pytest.raises(ConfigError, match=r'2 models .* got 1 metrics'):
        join_results(benchmark, files[:1])
    with pytest.raises(ConfigError, match='no time of the encoder'):
        join_results(benchmark, files, part='encoder')
    with pytest.raises(ConfigError, match='none of the metrics'):
        join_results(benchmark, [files[0], benchmark])
    with pytest.raises(ConfigError, match='--json has written'):
        join_results(files[0], files)


def test_lists_are_checked(write, tmp_path):
    good = [{'name': 'a', 'quality': 1.5, 'macs': 2}]
    assert read_results(write('good.json', good)) == good
    for bad, message in (
        ([{'name': 'a', 'quality': 1.5}], 'macs or latency_ms'),
        ([{'quality': 1.5, 'macs': 2}], 'must have a name'),
        ([3], 'must have a name'),
        ({'a': 1}, 'must hold a list'),
        ([], 'must hold a list'),
    ):
        with pytest.raises(ConfigError, match=message):
            read_results(write('bad.json', bad))
    with pytest.raises(ConfigError, match='not found'):
        read_results(tmp_path / 'none.json')
    (tmp_path / 'text.json').write_text('{')
    with pytest.raises(ConfigError, match='is not JSON'):
        read_results(tmp_path / 'text.json')


def test_points_stand_where_they_belong():
    results = [
        {'name': 'A-S', 'series': 'A', 'quality': 70, 'macs': 4e9},
        {'name': 'A-T', 'series': 'A', 'quality': 60, 'macs': 1e9},
        {'name': 'B', 'quality': 65, 'macs': 2e9, 'latency_ms': 3.0},
    ]
    over_macs, over_time = draw_curve(results).axes
    assert over_macs.lines[0].get_xydata().tolist() == [[1, 60], [4, 70]]
    assert over_macs.lines[1].get_xydata().tolist() == [[2, 65]]
    assert over_time.lines[0].get_xydata().tolist() == [[3, 65]]
    assert over_macs.get_xlabel() == 'MACs of one image (G)'
    assert [t.get_text() for t in over_time.texts] == ['B']


def test_only_what_is_known_is_drawn():
    results = [{'name': 'a', 'quality': 1, 'latency_ms': 5, 'batch_size': 2}]
    (axis,) = draw_curve(results).axes
    assert axis.get_xlabel() == 'latency for a batch of 2 (ms)'
    with pytest.raises(ConfigError, match='no results'):
        draw_curve([])


def test_names_that_would_hide_one_another_go_into_a_legend():
    results = [
        {'name': f'm{i}', 'quality': 70 + i / 10, 'macs': 1e9}
        for i in range(12)
    ]
    figure = draw_curve(results)
    (axis,) = figure.axes
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f'm{i}' for i in reversed(range(12))]
    assert not axis.texts
    looks = {(line.get_color(), line.get_marker()) for line in axis.lines}
    assert len(looks) == 12
    long = draw_curve([results[0], results[5] | {'name': 'long' * 20}])
    assert [text.get_text() for text in long.legends[0].get_texts()] == [
        'long' * 20,
        'm0',
    ]
    assert not draw_curve([results[0], results[11] | {'macs': 2e9}]).legends
