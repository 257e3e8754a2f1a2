/** A daemon's violation found by a case. */
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

/** A case not applicable to the daemon, with the reason. */
export class Skipped extends Error {
  override name = "Skipped";
}

export function expectThat(isTrue: boolean, expected: string, seen: string): void {
  if (!isTrue) throw new Wrong(expected, seen);
}

/** The result of a case. */
export type CaseResult = {
  name: string;
  promise: string;
  outcome: "pass" | "fail" | "skip";
  expected: string;
  seen: string;
  durationMs: number;
  /** The last lines of the daemon's output; empty for passed cases. */
  daemon: string[];
};
