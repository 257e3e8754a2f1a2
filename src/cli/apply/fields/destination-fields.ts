import { create } from "@bufbuild/protobuf";
import { type SecretValue, SecretValueSchema } from "#gen/pinion/v1/agent_pb.js";
import {
  type Destination,
  type DestinationSpec,
  DestinationSpecSchema,
} from "#gen/pinion/v1/destination_pb.js";
import type { Problem } from "../file/problems.ts";
import type { DestinationTree } from "../file/shape.ts";

/** A destination in the file's terms. `secrets` has the secret values. */
export type DestinationFields = {
  name: string;
  kind: "webhook" | "slack" | "email" | "platform";
  takes_alerts: boolean;
  url: string;
  channel: string;
  api_url: string;
  to: string[];
  from: string;
  platform: string;
  chat: string;
  secrets: Record<string, string>;
};

/** Keys with secrets, by kind. */
export const secretKeys: Record<DestinationFields["kind"], readonly string[]> = {
  webhook: ["signing_secret"],
  slack: ["webhook_url", "bot_token"],
  email: ["smtp_url"],
  platform: [],
};
const settingKeys: Record<DestinationFields["kind"], readonly string[]> = {
  webhook: ["url"],
  slack: ["channel", "api_url"],
  email: ["to", "from"],
  platform: ["platform", "chat"],
};
/** Fields readable by all members. */
export const openFields = [
  "name",
  "kind",
  "takes_alerts",
  "url",
  "channel",
  "api_url",
  "to",
  "from",
  "platform",
  "chat",
] as const;

export function fieldsOfDestinationTree(slug: string, tree: DestinationTree): DestinationFields {
  const secrets = Object.fromEntries(
    secretKeys[tree.kind].flatMap((key) => {
      const value = tree[key as "signing_secret"];
      return value === undefined ? [] : [[key, value]];
    }),
  );
  return {
    ...{ name: tree.name ?? slug, kind: tree.kind, takes_alerts: tree.takes_alerts ?? true, secrets },
    ...{ url: tree.url ?? "", channel: tree.channel ?? "", api_url: tree.api_url ?? "" },
    ...{ to: tree.to ?? [], from: tree.from ?? "" },
    ...{ platform: tree.platform ?? "", chat: tree.chat ?? "" },
  };
}

/** Problems of a destination's keys: keys unknown to its kind, and missing keys. */
export function destinationProblems(path: Problem["path"], tree: DestinationTree): Problem[] {
  const known = ["name", "kind", "takes_alerts", ...secretKeys[tree.kind], ...settingKeys[tree.kind]];
  const foreign = Object.keys(tree).filter((key) => !known.includes(key));
  const problems: Problem[] = foreign.map((key) => ({
    path: [...path, key],
    message: `a ${tree.kind} destination has no such key; it has ${[...secretKeys[tree.kind], ...settingKeys[tree.kind]].join(", ")}`,
  }));
  if (tree.kind === "webhook" && !tree.url) problems.push({ path: [...path, "url"], message: "is missing" });
  if (tree.kind === "platform") {
    for (const key of ["platform", "chat"] as const)
      if (!tree[key]) problems.push({ path: [...path, key], message: "is missing" });
  }
  if (tree.kind === "slack" && (tree.webhook_url === undefined) === (tree.bot_token === undefined)) {
    problems.push({ path, message: "a slack destination has either webhook_url or bot_token" });
  }
  return problems;
}

/** Fields of a destination from the server; secrets only as references. */
export function fieldsOfDestination({ spec }: Destination): DestinationFields {
  const kind = spec?.kind;
  const secrets: Record<string, string> = {};
  const keep = (name: string, secret: SecretValue | undefined) => {
    if (secret?.kind.case) secrets[name] = secret.kind.case === "value" ? secret.kind.value : "";
  };
  const fields: DestinationFields = {
    ...{
      name: spec?.name ?? "",
      kind: kind?.case ?? "webhook",
      takes_alerts: spec?.takesAlerts ?? true,
      secrets,
    },
    ...{ url: "", channel: "", api_url: "", to: [], from: "", platform: "", chat: "" },
  };
  if (kind?.case === "webhook") {
    keep("signing_secret", kind.value.signingSecret);
    return { ...fields, url: kind.value.url };
  }
  if (kind?.case === "slack") {
    keep(kind.value.access.case === "botToken" ? "bot_token" : "webhook_url", kind.value.access.value);
    return { ...fields, channel: kind.value.channel, api_url: kind.value.apiUrl };
  }
  if (kind?.case === "platform") {
    return { ...fields, platform: kind.value.platformId, chat: kind.value.chat };
  }
  if (kind?.case === "email") {
    keep("smtp_url", kind.value.smtpUrl);
    return { ...fields, to: kind.value.to, from: kind.value.from };
  }
  return fields;
}

/** The spec message with the fields. */
export function specOfDestination(fields: DestinationFields): DestinationSpec {
  const secret = (name: string) => {
    const value = fields.secrets[name];
    return value === undefined ? undefined : create(SecretValueSchema, { kind: { case: "value", value } });
  };
  const { name, takes_alerts: takesAlerts } = fields;
  const signingSecret = secret("signing_secret");
  const smtpUrl = secret("smtp_url");
  const [webhookUrl, botToken] = [secret("webhook_url"), secret("bot_token")];
  switch (fields.kind) {
    case "webhook":
      return create(DestinationSpecSchema, {
        ...{ name, takesAlerts },
        kind: { case: "webhook", value: { url: fields.url, ...(signingSecret ? { signingSecret } : {}) } },
      });
    case "slack":
      return create(DestinationSpecSchema, {
        ...{ name, takesAlerts },
        kind: {
          case: "slack",
          value: {
            ...{ channel: fields.channel, apiUrl: fields.api_url },
            access: botToken
              ? { case: "botToken", value: botToken }
              : { case: "webhookUrl", value: webhookUrl! },
          },
        },
      });
    case "platform":
      return create(DestinationSpecSchema, {
        ...{ name, takesAlerts },
        kind: { case: "platform", value: { platformId: fields.platform, chat: fields.chat } },
      });
    case "email":
      return create(DestinationSpecSchema, {
        ...{ name, takesAlerts },
        kind: {
          case: "email",
          value: { to: fields.to, from: fields.from, ...(smtpUrl ? { smtpUrl } : {}) },
        },
      });
  }
}
