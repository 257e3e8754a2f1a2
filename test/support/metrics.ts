/** The exposition format, read back. */

export type Scrape = {
  text: string;
  /**
   * The value of the only series with this name and at least these labels; undefined without such a
   * series.
   */
  sample(name: string, labels?: Record<string, string>): number | undefined;
};

export async function scrape(replica: { url: string }): Promise<Scrape> {
  const answer = await fetch(`${replica.url}/metrics`);
  if (!answer.ok) throw new Error(`/metrics answered ${answer.status}`);
  const text = await answer.text();
  const series = text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (!match) throw new Error(`not a sample: ${line}`);
      const pairs = [...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
      return {
        name: match[1]!,
        labels: Object.fromEntries(pairs.map(([, key, value]) => [key!, value!])),
        value: Number(match[3]),
      };
    });
  return {
    text,
    sample(name, labels = {}) {
      const found = series.filter(
        (one) =>
          one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value),
      );
      if (found.length > 1)
        throw new Error(`${found.length} series of ${name} fit ${JSON.stringify(labels)}`);
      return found[0]?.value;
    },
  };
}
