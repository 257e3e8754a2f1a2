import { type FaultProxy, startFaultProxy } from "../../support/fault-proxy.ts";
import type { ReplicaProcess } from "./replicas.ts";

/**
 * Between devices and replicas: a proxy for each device, which sends each new connection to some
 * replica that is up.
 */
export type Network = {
  /** The address for a device. */
  addProxy(): Promise<FaultProxy>;
  /** The address for people and services: without faults. */
  front: FaultProxy;
  close(): Promise<void>;
};

export async function openNetwork(replicas: readonly ReplicaProcess[]): Promise<Network> {
  // The replica for a connection is chosen randomly, without the seed: the choice depends on the
  // devices' connection times.
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
