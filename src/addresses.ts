/**
 * Which addresses the server may be sent to by what people of an org configure (destinations): those of the public internet, and
 * networks that the operator names. Judged on the address that is dialled, after the name was looked up and by the same look-up,
 * so a name that answers differently a moment later gains nothing.
 */
import { lookup as lookUp } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";

/** An address that is not to be reached; the message is meant for people of the org. */
export class AddressRefused extends Error {
  override name = "AddressRefused";
}

export type Reach = {
  isAllowed(address: string): boolean;
  /** For `lookup` of a socket: the addresses of a name that may be reached; an AddressRefused if there are none. */
  lookup: LookupFunction;
  /**
   * Throws an AddressRefused for a host that is an address, or a name by look-up, that may not be reached. A name that cannot
   * be looked up here is left to whoever dials it.
   */
  requireHost(host: string): Promise<void>;
};

/** Public by their range, and yet a cloud's own: the metadata and DNS service of Azure's machines. */
const special = ["168.63.129.16"];

/** "10.0.0.0/8, 192.168.1.7, ::1/128", or "*". Throws an error that names the first that is no network. */
export function parseNetworks(text: string): (address: string) => boolean {
  const networks = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (networks.includes("*")) return () => true;
  const parsed = networks.map((network) => {
    try {
      const [address, bits] = ipaddr.parseCIDR(
        network.includes("/") ? network : `${network}/${isIP(network) === 4 ? 32 : 128}`,
      );
      return [address, bits] as const;
    } catch {
      throw new Error(
        `"${network}" is no network; write 10.0.0.0/8, 192.168.1.7 or fd00::/8, separated by commas`,
      );
    }
  });
  return (text) => {
    const address = ipaddr.process(text);
    return parsed.some(
      ([network, bits]) => network.kind() === address.kind() && address.match(network, bits),
    );
  };
}

export function createReach(isOperators: (address: string) => boolean): Reach {
  function isAllowed(text: string): boolean {
    if (!ipaddr.isValid(text)) return false;
    if (isOperators(text)) return true;
    // An IPv4 address within an IPv6 one is judged as what it is; every other range that leads elsewhere is not unicast.
    const address = ipaddr.process(text);
    return address.range() === "unicast" && !special.includes(address.toString());
  }

  const refused = (host: string, address: string) =>
    new AddressRefused(
      `${host === address ? address : `${host} is ${address}, which`} is not of the public internet; ` +
        "the operator allows networks with PINION_DESTINATION_NETWORKS",
    );

  const lookup: LookupFunction = (host, options, callback) => {
    lookUp(host, { ...options, all: true }, (error, found) => {
      if (error) return callback(error, "");
      const allowed = found.filter(({ address }) => isAllowed(address));
      if (allowed.length === 0) return callback(refused(host, found[0]?.address ?? host), "");
      if (options.all) return callback(null, allowed);
      callback(null, allowed[0]!.address, allowed[0]!.family);
    });
  };

  return {
    isAllowed,
    lookup,
    async requireHost(hostname) {
      const host = hostname.replace(/^\[|\]$/g, "");
      if (isIP(host) !== 0) {
        if (!isAllowed(host)) throw refused(host, host);
        return;
      }
      await new Promise<void>((resolve, reject) => {
        lookup(host, { all: true }, (error) => {
          if (error instanceof AddressRefused) reject(error);
          else resolve();
        });
      });
    },
  };
}
