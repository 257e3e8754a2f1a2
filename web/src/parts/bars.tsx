/** Bars over time, each in parts; screen readers get a table. */
import type { Tone } from "../words.ts";

export type Part = { name: string; tone: Tone; value: number };
export type Bar = { key: string; label: string; parts: readonly Part[] };

const [width, height] = [600, 96];

type BarsProps = {
  label: string;
  bars: readonly Bar[];
  /** Formats a value; left out: the number. */
  words?: (value: number) => string;
};

export function Bars(props: BarsProps) {
  const { bars, words = (value: number) => value.toLocaleString("en") } = props;
  const totals = bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
  const most = Math.max(1e-9, ...totals);
  const each = width / Math.max(1, bars.length);
  return (
    <figure class="bars">
      <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
        <line x1="0" x2={width} y1={height - 0.5} y2={height - 0.5} class="ground" />
        {bars.map((bar, index) => (
          <Drawn key={bar.key} {...{ bar, most, each, words }} from={index * each} />
        ))}
      </svg>
      <figcaption aria-hidden="true">
        <span>{bars[0]?.label}</span>
        <span>at most {words(Math.max(0, ...totals))}</span>
        <span>{bars.at(-1)?.label}</span>
      </figcaption>
      <Spoken {...props} words={words} />
    </figure>
  );
}

/** A bar of the picture, `each` wide; the value `most` fills the height. */
function Drawn(props: {
  bar: Bar;
  from: number;
  each: number;
  most: number;
  words: (value: number) => string;
}) {
  const { bar, from, each, most, words } = props;
  const title = bar.parts.map(({ name, value }) => `${words(value)} ${name}`).join(", ") || "none";
  let top = height;
  return (
    <g>
      <title>{`${bar.label}: ${title}`}</title>
      <rect class="under" x={from} y="0" width={each} height={height} />
      {bar.parts.map(({ name, tone, value }) => {
        const tall = value === 0 ? 0 : Math.max(2, (value / most) * (height - 6));
        top -= tall;
        return (
          <rect key={name} class={tone} x={from + each * 0.12} y={top} width={each * 0.76} height={tall} />
        );
      })}
    </g>
  );
}

function Spoken({ label, bars, words }: Required<BarsProps>) {
  const names = [...new Set(bars.flatMap(({ parts }) => parts.map(({ name }) => name)))];
  return (
    // A table does not shrink to a pixel by itself.
    <div class="unseen">
      <table>
        <caption>{label}</caption>
        <thead>
          <tr>
            <th scope="col">When</th>
            {names.map((name) => (
              <th key={name} scope="col">
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {bars
            .filter(({ parts }) => parts.length > 0)
            .map((bar) => (
              <tr key={bar.key}>
                <th scope="row">{bar.label}</th>
                {names.map((name) => (
                  <td key={name}>{words(bar.parts.find((part) => part.name === name)?.value ?? 0)}</td>
                ))}
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
