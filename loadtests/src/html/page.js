// Draws the charts of a report from the tables behind them: each cell with a number has it as data-v, and what is drawn how is said by
// the heads of the columns. Text goes from cell to tooltip as text, never as markup. Without this script the tables are still there.
'use strict';
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function svg(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function html(parent, name, text, className) {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    parent.append(node);
    return node;
  }

  // Of as many values as there are: as arguments of a function they would be too many some day.
  const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);
  const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);

  // Numbers along the axes. Those of tables and tooltips were written by the program itself.
  const digits = (value) => String(Number(value.toPrecision(3)));
  const large = (value) => {
    for (const [size, sign] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) if (value >= size) return digits(value / size) + sign;
    return digits(value);
  };
  const UNITS = {
    seconds: (value) => (value === 0 ? '0' : value < 1e-3 ? `${digits(value * 1e6)} µs` : value < 1 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`),
    s: (value) => (value < 1 && value > 0 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`),
    min: (value) => `${digits(value / 60)} min`,
    h: (value) => `${digits(value / 3600)} h`,
    rate: (value) => `${large(value)}/s`,
    count: large,
    share: (value) => `${digits(value * 100)} %`,
  };

  function nice(span, most) {
    const raw = span / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 2.5, 5, 10].find((step) => step * power >= raw * 0.999) * power;
  }

  // A scale goes from values to pixels, and has ticks.
  function linear(low, high, from, to, most, whole) {
    const span = high - low || 1;
    const step = Math.max(nice(span, most), whole ? 1 : 0);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + span * 1e-9; i += 1) ticks.push(i * step);
    return { at: (value) => from + ((value - low) / span) * (to - from), ticks };
  }

  function logarithmic(low, high, from, to, most) {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const span = b - a || 1;
    const steps = span * 3 <= most ? [1, 2, 5] : [1];
    const every = Math.max(1, Math.ceil(span / most));
    const ticks = [];
    for (let power = Math.floor(a); power <= b; power += every) {
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
      }
    }
    return { at: (value) => from + ((Math.log10(Math.max(value, low)) - a) / span) * (to - from), ticks };
  }

  // Where a share of requests lies: each further nine is as wide as the last one.
  const ranked = (share) => -Math.log10(1 - share);

  function read(section) {
    const table = section.querySelector('table');
    return {
      columns: [...table.tHead.rows[0].cells].map((cell, index) => ({
        index, name: cell.textContent, draw: cell.dataset.draw, mark: cell.dataset.mark || 'c1',
      })),
      rows: [...table.tBodies[0].rows].map((row) => ({
        mark: row.dataset.mark,
        cells: [...row.cells].map((cell) => ({
          text: cell.textContent, value: cell.dataset.v === undefined ? null : Number(cell.dataset.v), parts: cell.dataset.parts,
        })),
      })),
    };
  }

  const tip = document.getElementById('tip');
  const said = document.getElementById('said');

  function showTip({ columns, rows }, index, x, y, aloud) {
    const { cells } = rows[index];
    tip.replaceChildren();
    html(tip, 'b', `${columns[0].name} ${cells[0].text}`.trim());
    const list = html(tip, 'dl');
    for (const column of columns.slice(1)) {
      if (!cells[column.index].text) continue;
      html(list, 'dt', column.name);
      html(list, 'dd', cells[column.index].text);
    }
    tip.hidden = false;
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const left = x + 16 + width > innerWidth ? x - 16 - width : x + 16;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(y + 16, innerHeight - height - 8))}px`;
    if (aloud) said.textContent = [...tip.querySelectorAll('b, dt, dd')].map((node) => node.textContent).join(' ');
  }

  // What puts the tooltip where it belongs again after scrolling, if keys brought it up.
  let again = null;

  function hideTip() {
    tip.hidden = true;
    again = null;
  }

  // Pointer and keys choose one of the rows: `pick` says which is at a point, `mark` shows it and says where the tooltip goes.
  function choose(canvas, data, pick, mark) {
    let chosen = -1;
    const set = (index, point) => {
      chosen = index;
      const place = mark(index);
      hideTip();
      if (index < 0) return;
      if (point) {
        showTip(data, index, point.clientX, point.clientY, false);
        return;
      }
      const at = (aloud) => {
        const box = canvas.getBoundingClientRect();
        showTip(data, index, box.left + place.x, box.top + place.y, aloud);
      };
      at(true);
      again = () => at(false);
    };
    const over = (event) => {
      const box = canvas.getBoundingClientRect();
      set(pick(event.clientX - box.left, event.clientY - box.top), event);
    };
    canvas.addEventListener('pointermove', over);
    canvas.addEventListener('pointerdown', over);
    canvas.addEventListener('pointerleave', () => set(-1));
    canvas.addEventListener('focus', () => { if (chosen < 0 && canvas.matches(':focus-visible')) set(0); });
    canvas.addEventListener('blur', () => set(-1));
    canvas.addEventListener('keydown', (event) => {
      const last = data.rows.length - 1;
      const to = {
        ArrowRight: chosen + 1, ArrowDown: chosen + 1, ArrowLeft: chosen - 1, ArrowUp: chosen - 1,
        PageDown: chosen + 10, PageUp: chosen - 10, Home: 0, End: last,
      }[event.key];
      if (event.key === 'Escape') set(-1);
      if (to === undefined) return;
      event.preventDefault();
      set(Math.max(0, Math.min(last, to)));
    });
  }

  function canvasIn(section, width, height) {
    const plot = section.querySelector('.plot');
    plot.replaceChildren();
    const title = section.querySelector('h3').textContent;
    return svg(plot, 'svg', {
      viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: 'img',
      'aria-label': `${title}. Arrow keys go through the values, which are also in the table below.`,
    });
  }

  // The nearest of ordered positions.
  function nearest(positions, x) {
    let best = 0;
    positions.forEach((position, index) => { if (Math.abs(position - x) < Math.abs(positions[best] - x)) best = index; });
    return best;
  }

  function verticalScale(section, values, from, to) {
    const { y, scale } = section.dataset;
    const most = Math.max(2, Math.floor((from - to) / 44));
    const high = largest(values);
    const low = least(values.filter((value) => value > 0));
    if (scale === 'auto' && high / low > 50) {
      return { ...logarithmic(10 ** Math.floor(Math.log10(low)), high * 1.1, from, to, most * 1.5), isLog: true };
    }
    const floor = high || 1;
    const step = Math.max(nice(floor, most), y === 'count' ? 1 : 0);
    return linear(0, Math.ceil((floor * 1.02) / step) * step, from, to, most, y === 'count');
  }

  function path(points, isStep) {
    let text = '';
    let before = null;
    for (const point of points) {
      if (point) text += !before ? `M${point[0]} ${point[1]}` : isStep ? `H${point[0]}V${point[1]}` : `L${point[0]} ${point[1]}`;
      before = point;
    }
    return text;
  }

  const round = (value) => Math.round(value * 100) / 100;

  // Lines and columns over time, and lines over the share of requests.
  function overX(section, data, width) {
    const height = width < 480 ? 230 : 260;
    const canvas = canvasIn(section, width, height);
    const drawn = data.columns.filter((column) => column.draw);
    const isRank = section.dataset.x === 'rank';
    const place = (row) => (isRank ? ranked(row.cells[0].value) : row.cells[0].value);
    const values = data.rows.flatMap((row) => drawn.map((column) => row.cells[column.index].value)).filter((value) => value !== null);
    const bottom = height - 40;
    const vertical = verticalScale(section, values, bottom, 12);
    const unit = UNITS[section.dataset.y];
    const left = 14 + 7 * Math.max(...vertical.ticks.map((tick) => unit(tick).length));
    const right = width - 14;
    const most = Math.max(2, Math.floor((right - left) / 74));
    const end = Math.max(Number(section.dataset.end || 0), largest(data.rows.map(place)));
    const across = linear(0, end, left, right, most);
    // Long runs have ticks at whole minutes or hours.
    const [period, seconds] = end < 600 ? ['s', 1] : end < 36000 ? ['min', 60] : ['h', 3600];
    const times = linear(0, end / seconds, left, right, most).ticks.map((tick) => tick * seconds);
    for (const tick of vertical.ticks) {
      const y = round(vertical.at(tick));
      svg(canvas, 'line', { class: 'grid-line', x1: left, x2: right, y1: y, y2: y });
      svg(canvas, 'text', { x: left - 8, y: y + 4, 'text-anchor': 'end' }, unit(tick));
    }
    svg(canvas, 'line', { class: 'base', x1: left, x2: right, y1: bottom, y2: bottom });
    const ticks = isRank ? [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999].filter((tick) => ranked(tick) <= end) : times;
    let free = -Infinity;
    for (const tick of ticks) {
      const x = round(across.at(isRank ? ranked(tick) : tick));
      const anchor = x > right - 20 ? 'end' : x < left + 20 ? 'start' : 'middle';
      const text = isRank ? `${String(Number((tick * 100).toFixed(6)))} %` : UNITS[period](tick);
      svg(canvas, 'line', { class: 'base', x1: x, x2: x, y1: bottom, y2: bottom + 4 });
      // Where there is no room for its text, the tick is enough.
      const begins = x - text.length * 7 * { start: 0, middle: 0.5, end: 1 }[anchor];
      if (begins < free) continue;
      free = begins + text.length * 7 + 6;
      svg(canvas, 'text', { x, y: bottom + 17, 'text-anchor': anchor }, text);
    }
    const label = section.dataset.label + (vertical.isLog ? ' (vertical scale: logarithmic)' : '');
    svg(canvas, 'text', { x: right, y: height - 6, 'text-anchor': 'end' }, label);

    const xs = data.rows.map((row) => round(across.at(place(row))));
    const wide = Math.max(2, Math.min(40, ((right - left) / Math.max(1, data.rows.length)) * 0.7));
    for (const column of drawn) {
      const points = data.rows.map((row, index) => {
        const { value } = row.cells[column.index];
        return value === null ? null : [xs[index], round(vertical.at(value))];
      });
      if (column.draw === 'column') {
        for (const point of points) {
          if (point && point[1] < bottom) {
            svg(canvas, 'rect', { class: `mark fill ${column.mark}`, x: round(point[0] - wide / 2), y: point[1], width: round(wide), height: round(bottom - point[1]), rx: 1.5 });
          }
        }
        continue;
      }
      const isStep = column.draw.startsWith('step');
      const style = column.draw.split(' ').slice(1).join(' ');
      svg(canvas, 'path', { class: `mark line ${column.mark} ${style}`, d: path(points, isStep) });
      // Where there are few, each is to be seen; one without neighbours is no line.
      points.forEach((point, index) => {
        if (point && (points.length <= 24 || (!points[index - 1] && !points[index + 1])) && !isStep && !style) {
          svg(canvas, 'circle', { class: `mark fill ${column.mark}`, cx: point[0], cy: point[1], r: 2.6 });
        }
      });
    }
    const marker = svg(canvas, 'g', {});
    choose(canvas, data, (x) => nearest(xs, x), (index) => {
      marker.replaceChildren();
      if (index < 0) return null;
      svg(marker, 'line', { class: 'cursor', x1: xs[index], x2: xs[index], y1: 12, y2: bottom });
      for (const column of drawn) {
        const { value } = data.rows[index].cells[column.index];
        if (value !== null && column.draw !== 'column') svg(marker, 'circle', { class: `spot fill ${column.mark}`, cx: xs[index], cy: round(vertical.at(value)), r: 4.5 });
      }
      return { x: xs[index], y: 12 };
    });
  }

  // What fits into a width, at 7 pixels a character.
  const cut = (text, width) => (text.length * 7 <= width ? text : `${text.slice(0, Math.max(1, Math.floor(width / 7) - 1))}…`);

  function rowMarker(canvas, data, top, each, width) {
    const chosen = svg(canvas, 'rect', { class: 'chosen', x: 0, width, y: 0, height: each, rx: 4, visibility: 'hidden' });
    const last = data.rows.length - 1;
    choose(canvas, data, (x, y) => Math.max(0, Math.min(last, Math.floor((y - top) / each))), (index) => {
      chosen.setAttribute('visibility', index < 0 ? 'hidden' : 'visible');
      if (index < 0) return null;
      chosen.setAttribute('y', top + index * each);
      return { x: width / 2, y: top + index * each };
    });
  }

  // A bar for each row, below its name, with a whisker up to a second figure where there is one.
  function bars(section, data, width) {
    const each = 38;
    const canvas = canvasIn(section, width, data.rows.length * each + 4);
    const bar = data.columns.find((column) => column.draw === 'bar');
    const whisker = data.columns.find((column) => column.draw === 'whisker');
    const of = (row, column) => (column && row.cells[column.index].value) || 0;
    const longest = largest(data.rows.map((row) => Math.max(of(row, bar), of(row, whisker)))) || 1;
    const high = section.dataset.y === 'share' ? Math.max(1, longest) : longest;
    data.rows.forEach((row, index) => {
      const top = index * each;
      const mark = row.mark || bar.mark;
      const to = (value) => round((value / high) * (width - 2));
      const numbers = [bar, whisker].filter(Boolean).map((column) => (whisker ? `${column.name} ` : '') + row.cells[column.index].text).join(' · ');
      svg(canvas, 'text', { class: 'name', x: 0, y: top + 15 }, cut(row.cells[0].text, width - numbers.length * 7 - 16));
      svg(canvas, 'text', { class: 'number', x: width, y: top + 15 }, numbers);
      svg(canvas, 'rect', { class: 'rail', x: 0, y: top + 22, width, height: 8, rx: 2 });
      if (of(row, bar) > 0) svg(canvas, 'rect', { class: `mark fill ${mark}`, x: 0, y: top + 22, width: Math.max(2, to(of(row, bar))), height: 8, rx: 2 });
      if (of(row, whisker) > 0) {
        const [from, end] = [to(of(row, bar)), to(of(row, whisker))];
        svg(canvas, 'path', { class: `mark line whisker ${mark}`, d: `M${from} ${top + 26}H${end}M${end} ${top + 20}V${top + 32}` });
      }
    });
    rowMarker(canvas, data, 0, each, width);
  }

  // Each row is a request, and its parts lie beside each other from its beginning on.
  function waterfall(section, data, width) {
    const each = data.rows.length > 40 ? 14 : 22;
    const top = 24;
    const canvas = canvasIn(section, width, data.rows.length * each + top + 8);
    const parts = data.rows.map((row) => row.cells.filter((cell) => cell.parts).flatMap((cell) => JSON.parse(cell.parts)));
    const latency = data.columns.find((column) => column.draw === 'whole');
    const end = largest(data.rows.map((row) => row.cells[latency.index].value || 0)) || 1;
    const names = width < 480 || each === 14 ? 0 : Math.min(170, width * 0.2);
    const across = linear(0, end, names, width - 14, Math.max(2, Math.floor((width - names) / 90)));
    for (const tick of across.ticks) {
      const x = round(across.at(tick));
      svg(canvas, 'line', { class: 'grid-line', x1: x, x2: x, y1: top - 4, y2: top + data.rows.length * each });
      svg(canvas, 'text', { x, y: 13, 'text-anchor': x > width - 40 ? 'end' : x < 20 ? 'start' : 'middle' }, UNITS.seconds(tick));
    }
    data.rows.forEach((row, index) => {
      const y = top + index * each;
      if (names) svg(canvas, 'text', { x: 0, y: y + each / 2 + 4 }, cut(row.cells[0].text, names - 8));
      const shown = parts[index].length ? parts[index] : [['', 0, row.cells[latency.index].value || 0, 'c6']];
      for (const [, from, to, mark] of shown) {
        const [left, right] = [across.at(from), across.at(to)];
        if (to > from) svg(canvas, 'rect', { class: `mark fill ${mark}`, x: round(left), y: y + 2, width: Math.max(0.5, round(right - left - (right - left > 3 ? 0.75 : 0))), height: each - 4 });
      }
    });
    rowMarker(canvas, data, top, each, width);
  }

  function legend(section, data) {
    const place = section.querySelector('.legend');
    const keys = section.dataset.keys ? JSON.parse(section.dataset.keys).map(([name, mark]) => ({ name, mark, draw: 'column' }))
      : data.columns.filter((column) => column.draw && column.draw !== 'bar' && column.draw !== 'whisker' && column.draw !== 'whole');
    if (keys.length < 2 && !section.dataset.keys) return;
    for (const key of keys) {
      const entry = html(place, 'span');
      const sample = svg(entry, 'svg', { viewBox: '0 0 20 10', 'aria-hidden': 'true' });
      if (key.draw === 'column') svg(sample, 'rect', { class: `fill ${key.mark}`, x: 4, y: 0, width: 12, height: 10, rx: 2 });
      else svg(sample, 'path', { class: `line ${key.mark} ${key.draw.split(' ').slice(1).join(' ')}`, d: 'M0 5H20' });
      entry.append(key.name);
    }
  }

  const KINDS = { x: overX, bars, waterfall };
  for (const section of all('[data-kind]')) {
    const data = read(section);
    if (data.rows.length === 0) continue;
    legend(section, data);
    const plot = section.querySelector('.plot');
    let drawnFor = 0;
    const draw = () => {
      const width = Math.floor(plot.clientWidth);
      if (width > 0 && width !== drawnFor) {
        drawnFor = width;
        // One that cannot be drawn leaves its table, and the others as they are.
        try {
          KINDS[section.dataset.kind](section, data, width);
        } catch (error) {
          console.error(error);
        }
      }
    };
    draw();
    new ResizeObserver(() => requestAnimationFrame(draw)).observe(plot);
  }
  addEventListener('scroll', () => (again ? again() : hideTip()), { passive: true });

  const root = document.documentElement;
  const isDark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
  const actions = document.getElementById('actions');
  const theme = html(actions, 'button', 'Light or dark');
  theme.type = 'button';
  theme.id = 'theme';
  theme.addEventListener('click', () => { root.dataset.theme = isDark() ? 'light' : 'dark'; });
  const save = html(actions, 'button', 'Save as JSON');
  save.type = 'button';
  save.id = 'save';
  save.addEventListener('click', () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([document.getElementById('report').textContent], { type: 'application/json' }));
    link.download = 'report.json';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
