/**
 * Names that nobody can see: of spaces, of invisible characters, of marks without a letter. Lists
 * would show an empty place, and two of them would look the same.
 */
import type { DescField, DescMessage, MessageShape } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

/** The fields that name something for people, in every message. */
const isOfName = /^(?:name|label|title|[a-z_]+_(?:name|label))$/;
const blank = /^[\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{M}\p{Default_Ignorable_Code_Point}\u2800]+$/u;

/** Whether a text has characters, of which none can be seen. */
export function isBlank(text: string): boolean {
  return blank.test(text);
}

/** For each message type: the fields that are names, or that may hold some. */
const fieldsOfNames = new Map<string, readonly DescField[]>();

/**
 * The path of a message's first name of invisible characters, in proto names; undefined for none.
 */
export function findBlankName<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): string | undefined {
  if (namingFieldsOf(schema).length === 0) return undefined;
  return search(reflect(schema, message, false), "");
}

function search(message: ReflectMessage, path: string): string | undefined {
  for (const field of namingFieldsOf(message.desc)) {
    if (!message.isSet(field)) continue;
    const name = path === "" ? field.name : `${path}.${field.name}`;
    const value: unknown = message.get(field);
    if (typeof value === "string") {
      if (isBlank(value)) return name;
      continue;
    }
    for (const item of field.fieldKind === "list" ? (value as Iterable<unknown>) : [value]) {
      const found = search(item as ReflectMessage, name);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

function namingFieldsOf(desc: DescMessage): readonly DescField[] {
  let fields = fieldsOfNames.get(desc.typeName);
  if (fields === undefined) {
    // A type within itself finds its own empty list meanwhile, and ends there.
    fieldsOfNames.set(desc.typeName, []);
    fields = desc.fields.filter((field) => {
      if (field.fieldKind === "scalar")
        return field.scalar === ScalarType.STRING && isOfName.test(field.name);
      const inner = field.fieldKind === "map" ? undefined : field.message;
      // Values of people's data have any fields.
      return (
        inner !== undefined && inner.file.proto.package === "pinion.v1" && namingFieldsOf(inner).length > 0
      );
    });
    fieldsOfNames.set(desc.typeName, fields);
  }
  return fields;
}
