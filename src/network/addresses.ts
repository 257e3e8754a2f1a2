/**
 * The addresses to which settings of an org's people (destinations) may send the server: addresses
 * of the public internet, and networks that the operator names. The rule is applied to the dialled
 * address: the look-up that judges a name also gives the address for the connection, so a name with
 * another answer a moment later reaches no other address.
 */
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { createNames, type FindAddresses } from "./names.ts";

/** Thrown for a forbidden address; the message is meant for people of the org. */
export class AddressRefused extends Error {
  override name = "AddressRefused";
}

export type Reach = {
  isAllowed(address: string): boolean;
  /** For `lookup` of a socket: the allowed addresses of a name; without any, an AddressRefused. */
  lookup: LookupFunction;
  /**
   * Throws an AddressRefused for a forbidden address, and for a name that has only forbidden
   * addresses. A name that cannot be looked up here passes: the proxy that dials the name decides.
   */
  requireHost(host: string): Promise<void>;
};

/**
 * Addresses of a public range that belong to a cloud: the metadata and DNS service of Azure's
 * machines.
 */
const special = ["168.63.129.16"];

/** All public addresses of IPv6 are in this network; "::7f00:1", for example, holds one of IPv4. */
const publicNetwork = ipaddr.IPv6.parseCIDR("2000::/3");

const isAssigned = (address: ipaddr.IPv4 | ipaddr.IPv6) =>
  address.kind() === "ipv4" || address.match(publicNetwork);

/**
 * Whether an address is in one of the networks: "10.0.0.0/8, 192.168.1.7, ::1/128", or "*" for all.
 * Throws an error that names the first malformed network.
 */
export function parseNetworks(text: string): (address: string) => boolean {
  const networks = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (networks.includes("*")) return () => true;
  const parsed = networks.map((network) => {
    try {
      const [named = "", length] = network.split("/", 2);
      const family = isIP(named);
      // The parser knows more: "10" is 0.0.0.10. An IPv4 address within an IPv6 address is judged
      // as IPv4.
      if (family === 0 || /^::ffff:/i.test(named)) throw new Error("no address");
      const [address, bits] = ipaddr.parseCIDR(
        length === undefined ? `${named}/${family === 4 ? 32 : 128}` : network,
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

export function createReach(
  isOperators: (address: string) => boolean,
  findAddresses: FindAddresses = createNames(),
): Reach {
  function isAllowed(text: string): boolean {
    if (!ipaddr.isValid(text)) return false;
    if (isOperators(text)) return true;
    // An IPv4 address within an IPv6 address is judged as an IPv4 address. All other ranges that
    // lead to local or special networks are not unicast.
    const address = ipaddr.process(text);
    return address.range() === "unicast" && isAssigned(address) && !special.includes(address.toString());
  }

  const refused = (host: string, address: string) =>
    new AddressRefused(
      `${host === address ? address : `${host} is ${address}, which`} is not of the public internet; ` +
        "the operator allows networks with PINION_DESTINATION_NETWORKS",
    );

  async function findAllowed(host: string, family: number) {
    const found = await findAddresses(host);
    const allowed = found.filter(({ address }) => isAllowed(address));
    if (allowed.length === 0) throw refused(host, found[0]?.address ?? host);
    const wanted = allowed.filter((one) => family === 0 || one.family === family);
    if (wanted.length === 0) throw new Error(`${host} has no address of IPv${family}`);
    return wanted;
  }

  const lookup: LookupFunction = (host, options, callback) => {
    const family = Number(String(options.family ?? 0).replace("IPv", ""));
    findAllowed(host, family).then(
      (wanted) => {
        const [first] = wanted;
        if (options.all) callback(null, wanted);
        else callback(null, first?.address ?? "", first?.family);
      },
      (error: Error) => callback(error, ""),
    );
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
      await findAllowed(host, 0).catch((error: unknown) => {
        if (error instanceof AddressRefused) throw error;
      });
    },
  };
}
