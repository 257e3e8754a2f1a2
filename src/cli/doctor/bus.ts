import { ConfigError, type NatsConfig, natsConfig } from "../../config.ts";
import { NatsTrouble } from "../../server/cluster/nats-trouble.ts";
import { formatLength } from "../print/lengths.ts";
import type { Check } from "./check.ts";

const roundTripMsMax = 50;

/** Checks NATS if configured as the bus. The checks of the database cover PostgreSQL as the bus. */
export async function checkBus(env: Record<string, string | undefined>): Promise<Check[]> {
  const name = "bus";
  let nats: NatsConfig | undefined;
  try {
    nats = natsConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return [{ name, verdict: "bad", found: error.message, advice: "see docs/scaling.md, NATS" }];
  }
  if (!nats) return [];
  const servers = nats.servers.join(", ");
  const { inspectNats } = await import("../../server/cluster/nats-line.ts");
  try {
    const { version, roundTripMs } = await inspectNats(nats);
    const found = `NATS ${version} at ${servers} answers in ${formatLength(roundTripMs)}`;
    if (roundTripMs <= roundTripMsMax) return [{ name, verdict: "good", found }];
    return [{ name, verdict: "doubtful", found, advice: "put NATS nearer to the servers" }];
  } catch (error) {
    if (!(error instanceof NatsTrouble)) throw error;
    const { server, what, advice } = error;
    const found = `no way in at ${server}: ${what}`;
    const until = "until then the sweep finds the work of other replicas";
    return [{ name, verdict: "bad", found, advice: `${advice}; ${until}` }];
  }
}
