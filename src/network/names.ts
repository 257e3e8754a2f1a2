/**
 * Look-ups of names that people of orgs have chosen. Their name servers may be slow or silent, and
 * the system's look-up (getaddrinfo) waits for them in two threads that the whole process shares:
 * eight silent names would hold up each other name, the database's too, for 40 s. So names are
 * asked of the name servers without a thread: hosts file, DNS, and only for a name that DNS does
 * not know the system, one at a time (search domains, mDNS).
 */
import { type LookupAddress, lookup } from "node:dns";
import { Resolver } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { Limit } from "../batches/limit.ts";

const lookUpBySystem = promisify(lookup);
const hostsPath = "/etc/hosts";
/** Milliseconds that a name server has to answer; the second try has twice as long. */
const answerMsMax = 2_000;
const triesMax = 2;
/** Maximum look-ups by the system that wait for the one under way. */
const waitingMax = 63;
/** Answers of DNS by which a name is not known to it: the system may know the name. */
const unknown = new Set(["ENOTFOUND", "ENODATA"]);

/** All addresses of a name, IPv4 first. Rejects with an error in words. */
export type FindAddresses = (host: string) => Promise<LookupAddress[]>;

/** `servers`: name servers in place of the system's. */
export function createNames({ servers }: { servers?: readonly string[] } = {}): FindAddresses {
  const underWay = new Map<string, Promise<LookupAddress[]>>();
  const bySystem = createSystemLookup();

  async function find(host: string): Promise<LookupAddress[]> {
    const named = await findInHosts(host);
    if (named.length > 0) return named;
    const found = host.includes(".") ? await askServers(host, servers) : [];
    return found.length > 0 ? found : bySystem(host);
  }

  return (host) => {
    const name = host.toLowerCase();
    const before = underWay.get(name);
    if (before) return before;
    const finding = find(name).finally(() => underWay.delete(name));
    underWay.set(name, finding);
    return finding;
  };
}

async function findInHosts(host: string): Promise<LookupAddress[]> {
  const text = await readFile(hostsPath, "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    const [address = "", ...names] = line.replace(/#.*/, "").trim().toLowerCase().split(/\s+/);
    return names.includes(host) ? [{ address, family: address.includes(":") ? 6 : 4 }] : [];
  });
}

/** The addresses by DNS, none for a name that DNS does not know. */
async function askServers(host: string, servers: readonly string[] | undefined): Promise<LookupAddress[]> {
  const resolver = new Resolver({ timeout: answerMsMax, tries: triesMax });
  if (servers) resolver.setServers(servers);
  const asked = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
  const found = asked.flatMap((answer, place) =>
    answer.status === "fulfilled"
      ? answer.value.map((address) => ({ address, family: place === 0 ? 4 : 6 }))
      : [],
  );
  const failed = asked.find(({ status }) => status === "rejected") as PromiseRejectedResult | undefined;
  const { code = "" } = (failed?.reason ?? {}) as NodeJS.ErrnoException;
  if (found.length === 0 && failed && !unknown.has(code))
    throw Object.assign(new Error(`the name servers of ${host} do not answer (${code})`), { code });
  return found;
}

function createSystemLookup(): FindAddresses {
  const limit = new Limit(1, waitingMax);
  return (host) =>
    limit.run(
      () => lookUpBySystem(host, { all: true }),
      () => new Error(`too many names wait to be looked up, and ${host} is one more`),
    );
}
