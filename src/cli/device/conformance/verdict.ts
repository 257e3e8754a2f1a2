/** What a case finds wrong with a daemon. */
export class Wrong extends Error {
  override name = "Wrong";
  readonly expected: string;
  readonly seen: string;

  constructor(expected: string, seen: string) {
    super(`expected: ${expected}; seen: ${seen}`);
    this.expected = expected;
    this.seen = seen;
  }
}

/** A case that says nothing about this daemon, and why. */
export class Skipped extends Error {
  override name = "Skipped";
}

export function expectThat(isTrue: boolean, expected: string, seen: string): void {
  if (!isTrue) throw new Wrong(expected, seen);
}

/** What became of a case. */
export type CaseResult = {
  name: string;
  promise: string;
  outcome: "pass" | "fail" | "skip";
  expected: string;
  seen: string;
  durationMs: number;
  /** The last lines that the daemon printed; empty for cases that passed. */
  daemon: string[];
};
