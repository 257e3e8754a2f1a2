/** Meanings of the command's exit codes; documented in docs/cli.md. */
export const exitCodes = {
  ok: 0,
  /** The operation was carried out and failed, or an error has no code of its own. */
  failed: 1,
  usage: 2,
  unreachable: 3,
  unauthenticated: 4,
  notFound: 5,
  conflict: 6,
  /** `apply --dry-run --exit-code`: the plan has changes. */
  changes: 7,
  /** A daemon on trial: its parent starts the program again (EX_TEMPFAIL). */
  startAgain: 75,
  /** 128 + SIGINT, as in shells. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** Ends the command with a message for people and an exit code. `advice` gives the remedy. */
export class Failure extends Error {
  override name = "Failure";
  readonly exitCode: ExitCode;
  readonly advice: string | undefined;

  constructor(exitCode: ExitCode, message: string, advice?: string) {
    super(message);
    this.exitCode = exitCode;
    this.advice = advice;
  }
}
