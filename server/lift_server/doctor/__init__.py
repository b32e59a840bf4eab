"""`lift-serve doctor`: what may be wrong with a deployment, part by part. Only its own probe object is written."""
