import { findIdentity, type Identity } from "@pinion/client";
import type { Cli } from "../cli.ts";
import { type GlobalOptions, serverUrl } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";

/** The identity in the state directory. Fails, with advice, on a machine that is no device yet. */
export async function requireIdentity(stateDir: string): Promise<Identity> {
  const identity = await findIdentity(stateDir);
  if (identity) return identity;
  throw new Failure(
    exitCodes.conflict,
    `this machine is no device yet (nothing in ${stateDir})`,
    "`pinion devices join-code` makes a code, `pinion device enroll --join-code …` uses it",
  );
}

/** The server of the device's enrolment, unless an option or the environment names another. */
export function deviceUrl(identity: Identity, options: GlobalOptions, { env }: Cli): string {
  return options.url || env.PINION_URL ? serverUrl(options, env) : identity.url;
}
