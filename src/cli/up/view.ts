import type { Cli } from "../cli.ts";
import { formatLength } from "../print/lengths.ts";
import { plain } from "../print/table.ts";
import { displayWidth } from "../print/width.ts";

/** Milestones of the first run, in order. */
export type Milestone = "due" | "pushed" | "accepted" | "started" | "output" | "finished" | "stored";

/**
 * Shows the progress of `up`: lines for people on standard output, or lines of JSON on standard
 * error.
 */
export class UpView {
  readonly #cli: Cli;
  readonly #asJson: boolean;
  #stepStartedAt = performance.now();
  #isAtLineStart = true;

  constructor(cli: Cli, asJson: boolean) {
    this.#cli = cli;
    this.#asJson = asJson;
  }

  title(version: string): void {
    if (!this.#asJson) this.#cli.out(`${this.#cli.colors.bold("Pinion")} ${version}\n`);
  }

  /** Reports a started part. The duration counts from the part before. */
  step(name: string, text: string, fields: Record<string, unknown> = {}): void {
    const tookMs = performance.now() - this.#stepStartedAt;
    this.#stepStartedAt = performance.now();
    if (this.#asJson) {
      this.#line({ step: name, took_ms: Math.round(tookMs), ...fields });
      return;
    }
    const { green, dim } = this.#cli.colors;
    const label = `  ${green("✓")} ${name.padEnd(9)} ${text}`;
    this.#cli.out(`${label}${" ".repeat(Math.max(2, 78 - displayWidth(label)))}${dim(formatLength(tookMs))}`);
  }

  /** Prints information without need for action. */
  note(text: string): void {
    if (this.#asJson) {
      this.#line({ note: text });
      return;
    }
    this.#endLine();
    this.#cli.out(`  ${this.#cli.colors.dim(`· ${plain(text)}`)}`);
  }

  run(id: string, watcher: string): void {
    if (this.#asJson) {
      this.#line({ run_id: id, watcher });
      return;
    }
    this.#cli.out(`\n  run ${this.#cli.colors.bold(id)} of ${watcher}\n`);
  }

  /**
   * Reports a milestone of the run, `sinceMs` ms after the one before (undefined for the first).
   */
  milestone(milestone: Milestone, sinceMs: number | undefined, text: string): void {
    if (this.#asJson) {
      this.#line({ milestone, ...(sinceMs === undefined ? {} : { since_ms: round(sinceMs) }) });
      return;
    }
    this.#endLine();
    const { cyan, dim } = this.#cli.colors;
    const since = sinceMs === undefined ? "" : `+${formatLength(Math.max(0, sinceMs))}`;
    this.#cli.out(`  ${since.padStart(10)}  ${cyan(milestone.padEnd(9))} ${dim(text)}`);
  }

  /** Shows a piece of the run's output, indented after a bar. */
  output(text: string): void {
    if (this.#asJson) return;
    const bar = `              ${this.#cli.colors.dim("│")} `;
    for (const piece of text.split(/(?<=\n)/)) {
      this.#cli.program(this.#isAtLineStart ? bar + piece : piece);
      this.#isAtLineStart = piece.endsWith("\n");
    }
  }

  /** Prints lines unchanged, for people only. */
  lines(lines: readonly string[]): void {
    if (this.#asJson) return;
    this.#endLine();
    for (const line of lines) this.#cli.out(line);
  }

  #endLine(): void {
    if (!this.#isAtLineStart) this.#cli.raw("\n");
    this.#isAtLineStart = true;
  }

  #line(fields: Record<string, unknown>): void {
    this.#cli.note(JSON.stringify({ at: new Date().toISOString(), ...fields }));
  }
}

/** Milliseconds with one decimal: smaller differences are noise. */
export function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
