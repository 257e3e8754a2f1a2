import type { ComponentChildren } from "preact";

/** A fact and its name; an empty value is not shown. */
export type Fact = readonly [name: string, value: ComponentChildren];

/** Facts with their names; `children`: further entries of the list. */
export function FactList({ facts, children }: { facts: readonly Fact[]; children?: ComponentChildren }) {
  return (
    <dl>
      {facts
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      {children}
    </dl>
  );
}
