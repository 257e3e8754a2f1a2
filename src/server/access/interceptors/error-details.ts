import { create, createFileRegistry, type DescMessage } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  file_google_protobuf_duration,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";

/**
 * google.rpc.BadRequest and google.rpc.RetryInfo, missing in all installed packages. Only names and
 * field numbers matter on the wire:
 * https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
 */
const file = create(FileDescriptorProtoSchema, {
  name: "google/rpc/error_details.proto",
  package: "google.rpc",
  syntax: "proto3",
  dependency: ["google/protobuf/duration.proto"],
  messageType: [
    {
      name: "RetryInfo",
      field: [
        {
          name: "retry_delay",
          number: 1,
          label: Label.OPTIONAL,
          type: Type.MESSAGE,
          typeName: ".google.protobuf.Duration",
        },
      ],
    },
    {
      name: "BadRequest",
      field: [
        {
          name: "field_violations",
          number: 1,
          label: Label.REPEATED,
          type: Type.MESSAGE,
          typeName: ".google.rpc.BadRequest.FieldViolation",
        },
      ],
      nestedType: [
        {
          name: "FieldViolation",
          field: [
            { name: "field", number: 1, label: Label.OPTIONAL, type: Type.STRING },
            { name: "description", number: 2, label: Label.OPTIONAL, type: Type.STRING },
          ],
        },
      ],
    },
  ],
});

const registry = createFileRegistry(file, (name) =>
  name === file_google_protobuf_duration.proto.name ? file_google_protobuf_duration.proto : undefined,
);

function messageOf(name: string): DescMessage {
  const message = registry.getMessage(name);
  if (!message) throw new Error(`the file of error details has no ${name}`);
  return message;
}

/** `{ fieldViolations: [{ field, description }] }` */
export const BadRequestSchema: DescMessage = messageOf("google.rpc.BadRequest");
/** `{ retryDelay: Duration }` */
export const RetryInfoSchema: DescMessage = messageOf("google.rpc.RetryInfo");
