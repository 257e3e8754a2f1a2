/** A login without a token: a person confirms a short code on the page, in any browser. */
import { hostname, userInfo } from "node:os";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Clients, isRetryable, isUnauthenticated } from "@pinion/client";
import { LoginState } from "#gen/pinion/v1/sign_in_pb.js";
import { sleep } from "../../time/abort.ts";
import { type Cli, interruptSignal } from "../cli.ts";
import { exitCodes, Failure } from "../failures.ts";

export type LoggedIn = { token: string; orgId: string; userName: string };

const intervalMsMin = 1_000;
const nameCharactersMax = 90;

/**
 * Shows the code and the address, and waits for the person's decision. Failures of the network are
 * tried again until the code's end.
 */
export async function logInByCode(cli: Cli, clients: Clients, url: string): Promise<LoggedIn> {
  const { deviceCode, userCode, path, expiresAt, interval } = await clients.signIns.startLogin({
    clientName: ownName(),
  });
  cli.note(`open ${url}${path}`);
  cli.note(`and confirm the code  ${cli.colors.bold(userCode)}`);
  const endsAtMs = expiresAt ? timestampMs(expiresAt) : Date.now() + 10 * 60_000;
  const intervalMs = Math.max(intervalMsMin, interval ? durationMs(interval) : 0);
  const interrupt = interruptSignal();
  try {
    while (Date.now() < endsAtMs) {
      await sleep(intervalMs, interrupt.signal);
      if (interrupt.signal.aborted)
        throw new Failure(exitCodes.interrupted, "stopped before the code was confirmed");
      const told = await finish(clients, deviceCode);
      if (told?.state === LoginState.CONFIRMED) {
        return { token: told.secret, orgId: told.orgId, userName: told.userName };
      }
      if (told?.state === LoginState.DENIED) {
        throw new Failure(exitCodes.unauthenticated, "the login was turned down on the page");
      }
    }
  } finally {
    interrupt.dispose();
  }
  throw tooLate();
}

async function finish(clients: Clients, deviceCode: string) {
  try {
    return await clients.signIns.finishLogin({ deviceCode });
  } catch (error) {
    if (isUnauthenticated(error)) throw tooLate();
    if (isRetryable(error)) return undefined;
    throw error;
  }
}

const tooLate = () =>
  new Failure(exitCodes.unauthenticated, "nobody confirmed the code in time", "give the command again");

/** For the person who confirms. */
function ownName(): string {
  let user = "";
  try {
    user = `${userInfo().username}@`;
  } catch {
    // A user id without a name.
  }
  return `pinion on ${user}${hostname()}`.slice(0, nameCharactersMax);
}
