import type { Cli } from "../../cli.ts";
import { cut } from "../../print/width.ts";
import type { Step } from "../plan/steps.ts";
import { doneLine, failedLine } from "../plan/view.ts";
import type { Failed, Progress } from "../run.ts";

/** Redraw interval of the progress line on a terminal, in ms. */
const redrawMs = 100;
const frames = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const barWidth = 24;

/** Prints a line for each finished step; on a terminal also a progress bar below, until the end. */
export class ProgressView implements Progress, Disposable {
  readonly #cli: Cli;
  #total: number;
  #done = 0;
  #frame = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(cli: Cli, total: number) {
    this.#cli = cli;
    this.#total = total;
    if (!cli.isTerminal) return;
    this.#draw();
    this.#timer = setInterval(() => this.#draw(), redrawMs);
  }

  onDone(step: Step): void {
    this.#done += 1;
    this.#line(`  ${doneLine(this.#cli, step)}`);
  }

  onFailed(failed: Failed): void {
    this.#total -= 1;
    this.#line(`  ${failedLine(this.#cli, failed)}`);
  }

  onReplan(left: number): void {
    this.#total = this.#done + left;
    this.#line(`  ${this.#cli.colors.dim("somebody else changed something meanwhile; planned again")}`);
  }

  [Symbol.dispose](): void {
    if (!this.#timer) return;
    clearInterval(this.#timer);
    this.#cli.raw("\r\x1b[2K");
  }

  #line(text: string): void {
    if (this.#timer) this.#cli.raw("\r\x1b[2K");
    this.#cli.out(text);
    if (this.#timer) this.#draw();
  }

  #draw(): void {
    this.#frame = (this.#frame + 1) % frames.length;
    const filled = Math.round((barWidth * this.#done) / Math.max(1, this.#total));
    const bar = "█".repeat(filled) + "░".repeat(Math.max(0, barWidth - filled));
    const text = cut(
      `  ${frames[this.#frame]} ${bar} ${this.#done} of ${this.#total}`,
      this.#cli.columns - 1,
    );
    this.#cli.raw(`\r\x1b[2K${this.#cli.colors.cyan(text)}`);
  }
}
