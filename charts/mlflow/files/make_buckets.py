"""Make the buckets that the arguments name, patiently: the store may still be starting."""

import sys

import boto3
from botocore.config import Config

client = boto3.client(
    "s3", config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 10})
)
for name in sys.argv[1:]:
    try:
        client.create_bucket(Bucket=name)
        print(f"bucket {name}: made")
    except client.exceptions.BucketAlreadyOwnedByYou:
        print(f"bucket {name}: there already")
