// grpc-js, that is HTTP/2 and protobuf without any of gRPC's C code; it learns the protocol by reflection.
//
// NODE_PATH=ENVIRONMENT/node_modules node benchmarks/clients/node_client.js ADDRESS
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { promisify } = require("node:util");
const grpc = require("@grpc/grpc-js");
const { GrpcReflection } = require("grpc-js-reflection-client");

const MODEL = "nin-root-4";

async function main(address) {
  const reflection = new GrpcReflection(address, grpc.credentials.createInsecure());
  console.log("services", (await reflection.listServices()).join(", "));
  const described = await reflection.getDescriptorBySymbol("inference.GRPCInferenceService");
  const { inference } = described.getPackageObject({ keepCase: true, longs: Number });
  const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
  // A PNG file as it is, behind its length. Read by reflection, a map is a list of its entries.
  const file = fs.readFileSync(path.join(__dirname, "../../examples/images/cat.png"));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(file.length);
  const request = {
    model_name: MODEL,
    id: "a-1",
    inputs: [{ name: "encoded", datatype: "BYTES", shape: [1] }],
    outputs: [{ name: "logits", parameters: [{ key: "classification", value: { int64_param: 3 } }] }],
    raw_input_contents: [Buffer.concat([length, file])],
  };
  const deadline = () => ({ deadline: Date.now() + 30000 });
  const infer = promisify(client.ModelInfer).bind(client);
  const answer = await infer(request, new grpc.Metadata(), deadline());
  console.log("ModelInfer", answer.id, classes(answer));

  const stream = client.ModelStreamInfer(new grpc.Metadata(), deadline());
  for (let number = 0; number < 100; number += 1) stream.write({ ...request, id: String(number) });
  stream.end();
  const ids = [];
  for await (const { error_message: error, infer_response: part } of stream) {
    assert.ok(!error, error);
    ids.push(Number(part.id));
  }
  assert.deepStrictEqual(ids, [...Array(100).keys()]);
  console.log("ModelStreamInfer", ids.length, "answers in order");

  await assert.rejects(infer({ ...request, model_name: "nobody" }, new grpc.Metadata(), deadline()), (error) => {
    console.log("unknown model:", error.message);
    return error.code === grpc.status.NOT_FOUND;
  });
  client.close();
}

// Each class as Triton gives it, behind its length in four bytes.
function classes(answer) {
  const content = answer.raw_output_contents[0];
  const found = [];
  for (let at = 0; at < content.length; at += 4 + content.readUInt32LE(at)) {
    found.push(content.toString("utf8", at + 4, at + 4 + content.readUInt32LE(at)));
  }
  assert.match(found[0], /:3:cat$/);
  return found;
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
