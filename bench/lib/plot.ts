/** Horizontal bars as an SVG for pages with light and dark backgrounds. */
export type Plot = {
  title: string;
  isLogarithmic?: boolean;
  bars: { label: string; values: { value: number; text: string }[] }[];
};

const width = 760;
const labelWidth = 300;
const valueWidth = 90;
const barHeight = 16;
const groupGap = 12;
const top = 40;
const colours = ["#2563eb", "#93b4f5"];

export function plotOf({ title, isLogarithmic = false, bars }: Plot): string {
  const values = bars.flatMap((bar) => bar.values.map(({ value }) => value));
  const most = Math.max(...values);
  // A logarithmic axis begins at the power of ten below the smallest.
  const least = isLogarithmic ? 10 ** Math.floor(Math.log10(Math.min(...values))) : 0;
  const room = width - labelWidth - valueWidth;
  const lengthOf = (value: number) =>
    room * (isLogarithmic ? Math.log(value / least) / Math.log(most / least) : value / most);
  const parts: string[] = [];
  let y = top;
  for (const { label, values } of bars) {
    const middle = y + (values.length * barHeight) / 2 + 4;
    parts.push(`<text x="${labelWidth - 8}" y="${middle}" text-anchor="end">${escaped(label)}</text>`);
    for (const [index, { value, text }] of values.entries()) {
      const length = Math.max(1, lengthOf(value)).toFixed(1);
      parts.push(
        `<rect x="${labelWidth}" y="${y + 1}" width="${length}" height="${barHeight - 2}" fill="${colours[index]}"/>`,
        `<text x="${(labelWidth + Number(length) + 6).toFixed(1)}" y="${y + barHeight - 4}">${escaped(text)}</text>`,
      );
      y += barHeight;
    }
    y += groupGap;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${y}" fill="#ffffff"/>`,
    `<text x="12" y="22" font-size="14" font-weight="600">${escaped(title)}</text>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
