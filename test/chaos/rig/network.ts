import { type FaultProxy, startFaultProxy } from "../../support/fault-proxy.ts";
import type { ReplicaProcess } from "./replicas.ts";

/**
 * Between devices and replicas: a proxy for each device, which sends each new connection to some
 * replica that is up.
 */
export type Network = {
  /** Where a device connects. */
  addProxy(): Promise<FaultProxy>;
  /** Where people and services connect: without faults of its own. */
  front: FaultProxy;
  close(): Promise<void>;
};

export async function openNetwork(replicas: readonly ReplicaProcess[]): Promise<Network> {
  // The way of a connection is the network's own chance, not the seed's: it depends on when devices connect.
  const pick = () => {
    const up = replicas.filter(({ isUp }) => isUp);
    const replica = up[Math.floor(Math.random() * up.length)];
    return replica && { port: replica.port };
  };
  const proxies: FaultProxy[] = [await startFaultProxy(pick)];
  return {
    front: proxies[0]!,
    async addProxy() {
      const proxy = await startFaultProxy(pick);
      proxies.push(proxy);
      return proxy;
    },
    async close() {
      await Promise.all(proxies.map((proxy) => proxy.close()));
    },
  };
}
