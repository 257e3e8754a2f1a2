import { createServer } from "node:net";
import { reachableHost } from "../../server/http/port/port.ts";
import { exitCodes, Failure, systemCode } from "../failures.ts";

/** Time limit in ms for asking a port's holder whether it is a Pinion. */
const askTimeoutMs = 1_000;

/** Refuses a taken port before any slow start. Port 0 is always free. */
export async function requireFreePort(host: string, port: number): Promise<void> {
  if (port === 0) return;
  const error = await new Promise<Error | undefined>((done) => {
    const server = createServer();
    server.once("error", done);
    server.listen({ host, port }, () => server.close(() => done(undefined)));
  });
  if (!error) return;
  const isPinion = systemCode(error) === "EADDRINUSE" && (await answersHealth(host, port));
  throw isPinion
    ? new Failure(
        exitCodes.conflict,
        `a server that looks like a Pinion answers on port ${port} already`,
        "use that one, stop it, or start a second one with --port and --data of its own (`npm start -- --port 8080 --data ./second`)",
      )
    : listenFailure(error, port);
}

/** The Failure for a listen error; other errors unchanged. */
export function listenFailure(error: unknown, port: number): unknown {
  switch (systemCode(error)) {
    case "EADDRINUSE":
      return new Failure(
        exitCodes.conflict,
        `port ${port} is taken by another program`,
        "choose another one with --port (`npm start -- --port 8080`; 0 lets the system choose)",
      );
    case "EACCES":
      return new Failure(
        exitCodes.conflict,
        `this user may not listen on port ${port}`,
        "choose a port above 1023 with --port (`npm start -- --port 8080`)",
      );
    case "EADDRNOTAVAIL":
      return new Failure(
        exitCodes.usage,
        "this machine does not have that address",
        "check --host or PINION_HOST",
      );
    case "ENOTFOUND":
      return new Failure(
        exitCodes.usage,
        "the name of the address to listen at is not known here",
        "check --host or PINION_HOST",
      );
    default:
      return error;
  }
}

async function answersHealth(host: string, port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://${reachableHost(host)}:${port}/healthz`, {
      signal: AbortSignal.timeout(askTimeoutMs),
    });
    return answer.ok;
  } catch {
    return false;
  }
}
