/** Bars over time, each in parts; screen readers get a table. */
import type { Tone } from "../words.ts";

export type Part = { name: string; tone: Tone; value: number };
export type Bar = { key: string; label: string; parts: readonly Part[] };

const [width, height] = [600, 96];

export function Bars(props: {
  label: string;
  bars: readonly Bar[];
  /** Formats a value; left out: the number. */
  words?: (value: number) => string;
}) {
  const { bars, words = (value: number) => value.toLocaleString("en") } = props;
  const totals = bars.map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
  const most = Math.max(1e-9, ...totals);
  const names = [...new Set(bars.flatMap(({ parts }) => parts.map(({ name }) => name)))];
  const each = width / Math.max(1, bars.length);
  return (
    <figure class="bars">
      <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
        <line x1="0" x2={width} y1={height - 0.5} y2={height - 0.5} class="ground" />
        {bars.map((bar, index) => {
          let from = height;
          return (
            <g key={bar.key}>
              <title>
                {`${bar.label}: ${bar.parts.map(({ name, value }) => `${words(value)} ${name}`).join(", ") || "none"}`}
              </title>
              <rect class="under" x={index * each} y="0" width={each} height={height} />
              {bar.parts.map(({ name, tone, value }) => {
                const tall = value === 0 ? 0 : Math.max(2, (value / most) * (height - 6));
                from -= tall;
                return (
                  <rect
                    key={name}
                    class={tone}
                    x={index * each + each * 0.12}
                    y={from}
                    width={each * 0.76}
                    height={tall}
                  />
                );
              })}
            </g>
          );
        })}
      </svg>
      <figcaption aria-hidden="true">
        <span>{bars[0]?.label}</span>
        <span>at most {words(Math.max(0, ...totals))}</span>
        <span>{bars.at(-1)?.label}</span>
      </figcaption>
      {/* A table does not shrink to a pixel by itself. */}
      <div class="unseen">
        <table>
          <caption>{props.label}</caption>
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
    </figure>
  );
}
