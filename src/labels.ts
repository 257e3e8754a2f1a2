/**
 * Labels of devices: words by which watchers select the devices they run on. People give a device labels; others a device
 * reports by what it can do, and these have a ":" in them, so that no person can give one.
 */

/** Labels that people may give one device. */
export const labelsMax = 64;

const labelPattern = /^[a-z0-9][a-z0-9._/=-]{0,62}$/;

/** Why a text is no label that a person can give; undefined: it is one. */
export function labelProblem(text: string): string | undefined {
  if (labelPattern.test(text)) return undefined;
  const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
  if (/^(has|workspace):/.test(text)) {
    return `${shown} is a label that the device itself reports: configure the executor or workspace on the device`;
  }
  return `${shown} is no label: 1 to 63 of a-z, 0-9, ".", "_", "-", "/" and "=", beginning with a letter or digit`;
}

/** What labels are made of: columns of a device. */
export type Labelled = {
  os: string;
  machine: unknown;
  executors: readonly unknown[];
  agent_kinds: readonly string[];
  workspaces: readonly unknown[];
  labels: readonly string[];
};

type Named = { kind?: string; name?: string; problem?: string };

/** The labels that a device reports, sorted. An executor or workspace that cannot be used at present has none. */
export function reportedLabels({ executors, agent_kinds, workspaces }: Labelled): string[] {
  const broken = new Set(
    (executors as readonly Named[]).flatMap(({ kind, problem }) => (problem ? [kind] : [])),
  );
  const kinds = agent_kinds.filter((kind) => !broken.has(kind)).map((kind) => `has:${kind}`);
  const places = (workspaces as readonly Named[]).flatMap(({ name, problem }) =>
    name && !problem ? [`workspace:${name}`] : [],
  );
  return [...new Set([...kinds, ...places])].sort();
}

/** The architecture that a device reported, under one name for each; empty: unknown. */
export function archOf({ machine }: Pick<Labelled, "machine">): string {
  const { arch = "" } = machine as { arch?: string };
  return archNames[arch.toLowerCase()] ?? arch.toLowerCase();
}

/** Daemons in other languages call them by their own names. */
const archNames: Record<string, string | undefined> = {
  amd64: "x64",
  x86_64: "x64",
  aarch64: "arm64",
};

/** What a selector sees of a device. */
export type Facts = { os: string; arch: string; labels: string[] };

export function factsOf(device: Labelled): Facts {
  return {
    os: device.os,
    arch: archOf(device),
    labels: [...device.labels, ...reportedLabels(device)],
  };
}
