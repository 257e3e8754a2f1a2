/**
 * The tries of a replica by the receiver's host. Many orgs send to one host (Slack, a mail server):
 * if the host hangs, its tries would take all places of the replica.
 */
import type { Sent } from "../../scheduler/deliverer.ts";

/** Maximum concurrent tries at a host: a quarter of the replica's. */
const perHostMax = 64;

export type Hosts = {
  /** Sends, or postpones the delivery if the host has too many tries. */
  at(url: string, send: () => Promise<Sent>): Promise<Sent>;
};

export function createHosts(): Hosts {
  const tries = new Map<string, number>();

  function count(host: string, by: 1 | -1): void {
    const now = (tries.get(host) ?? 0) + by;
    if (now === 0) tries.delete(host);
    else tries.set(host, now);
  }

  return {
    async at(url, send) {
      const host = URL.parse(url)?.host ?? "";
      if ((tries.get(host) ?? 0) >= perHostMax) {
        const error = `${perHostMax} deliveries wait for ${host} already`;
        return { outcome: "postponed", status: 0, error };
      }
      count(host, 1);
      try {
        return await send();
      } finally {
        count(host, -1);
      }
    },
  };
}
