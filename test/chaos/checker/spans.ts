/** Stretches of time, in milliseconds since the epoch. */
export type Span = { from: number; to: number };

export function merge(spans: readonly Span[]): Span[] {
  const merged: Span[] = [];
  for (const span of [...spans].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1);
    if (last && span.from <= last.to) last.to = Math.max(last.to, span.to);
    else merged.push({ ...span });
  }
  return merged;
}

export function subtract(spans: readonly Span[], holes: readonly Span[]): Span[] {
  return spans.flatMap((span) => {
    const parts: Span[] = [];
    let { from } = span;
    for (const hole of holes) {
      if (hole.to <= from || hole.from >= span.to) continue;
      if (hole.from > from) parts.push({ from, to: hole.from });
      from = Math.max(from, hole.to);
    }
    if (from < span.to) parts.push({ from, to: span.to });
    return parts;
  });
}
